"""The test matrix, for those who have several Pythons: ``nox``, or ``nox -s "tests-3.13(django='5.2')"``."""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("django", ["4.2", "5.2"])
def tests(session: nox.Session, django: str) -> None:
    """Test the built wheel, never the checkout."""
    if session.python == "3.13" and django == "4.2":
        session.skip("Django 4.2 does not support Python 3.13")
    extras = "[django,apscheduler,celery,cron,cli,metrics]"
    session.install(f".{extras}", "--group", "test", f"django~={django}.0")
    session.run("pytest", *session.posargs, env={"PYTHONSAFEPATH": "1"})


@nox.session(python=["3.11", "3.12", "3.13"], name="grpc")
def over_grpc(session: nox.Session) -> None:
    """Test etcd over gRPC, with the protobuf that etcd3 needs."""
    session.install(".[etcd3]", "--group", "grpc")
    options = ("-c", "tests/grpc/pytest.toml", "--rootdir", ".", "--confcutdir", "tests/grpc")
    tests = session.posargs or ("tests/grpc", "tests/contract")
    session.run("pytest", *options, *tests, env={"PYTHONPATH": "tests", "PYTHONSAFEPATH": "1"})
