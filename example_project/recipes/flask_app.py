"""
Flask under gunicorn.

    gunicorn -c recipes/gunicorn_conf.py recipes.flask_app:app

The scheduler is made here, and started in each worker by `recipes.gunicorn_conf`: so it does not
matter whether this module is imported before the workers are forked (``--preload``) or after.
"""

import os

from flask import Flask

from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler
from recipes.ticking import tick

app = Flask(__name__)
scheduler = LeaderBackgroundScheduler()
scheduler.add_job(tick, "interval", seconds=1, coalesce=False)


@app.get("/")
def home() -> dict[str, object]:
    """Say which process answers, and whether it is the one that fires."""
    return {"pid": os.getpid(), "leads": scheduler.leads}
