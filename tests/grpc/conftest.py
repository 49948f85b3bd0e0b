"""
Tests of etcd over gRPC, run by ``make test-grpc`` in an environment of its own.

The contract suite runs there too. Elsewhere there is no ``etcd3``, and nothing of this is collected.
"""

from testsupport.over_grpc import OVER_GRPC

collect_ignore_glob = [] if OVER_GRPC else ["test_*"]
