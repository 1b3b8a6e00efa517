"""Run a worker that writes heartbeats as often as `tiny_job` expects them."""

from __future__ import annotations

from adamas.compare.runner import worker
from tests.compare.tiny_job import hurry

if __name__ == "__main__":
    hurry()
    worker.main()
