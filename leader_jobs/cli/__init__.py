"""The command line: see elections, steer them, examine what they rest on, run a command in one."""
