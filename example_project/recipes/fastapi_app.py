"""
FastAPI under uvicorn with several workers.

    uvicorn recipes.fastapi_app:app --workers 4
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from leader_jobs.adapters.apscheduler import LeaderAsyncIOScheduler
from recipes.ticking import tick

scheduler = LeaderAsyncIOScheduler()
scheduler.add_job(tick, "interval", seconds=1, coalesce=False)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Stand in the election as long as this worker serves."""
    scheduler.start()
    yield
    scheduler.shutdown()
    await asyncio.to_thread(scheduler.join)  # uvicorn kills itself right after this


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def home() -> dict[str, object]:
    """Say which process answers, and whether it is the one that fires."""
    return {"pid": os.getpid(), "leads": scheduler.leads}
