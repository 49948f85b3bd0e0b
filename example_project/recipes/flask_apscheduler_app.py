"""
Flask-APScheduler, elected; the rest is as its own documentation says.

    gunicorn -w 4 recipes.flask_apscheduler_app:app        # not with --preload
    flask --app recipes.flask_apscheduler_app run --debug

It leaves out the reloader's first process by itself, but no other command: ``flask shell`` stands
in the election as well.
"""

import os

from flask import Flask
from flask_apscheduler import APScheduler

from leader_jobs.adapters.apscheduler import elect
from recipes.ticking import tick

app = Flask(__name__)
scheduler = elect(APScheduler())
scheduler.init_app(app)
scheduler.add_job("tick", tick, trigger="interval", seconds=1, coalesce=False)
scheduler.start()


@app.get("/")
def home() -> dict[str, object]:
    """Say which process answers, and whether it is the one that fires."""
    return {"pid": os.getpid(), "leads": scheduler.scheduler.leads}
