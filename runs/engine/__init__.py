"""The engine: pure Python, no Django, no Celery, no SDK. `loop.advance` is the place to start reading."""
