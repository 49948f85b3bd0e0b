"""
A play in three acts: three nodes of the shop, and what becomes of the jobs when leaders go.

``make demo`` runs it. `demo.script` says what happens, `demo.accounts` what was planned and what was
really done, `demo.verdict` whether that is right.
"""
