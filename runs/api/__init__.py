"""The HTTP API of runs, agents and tools: request shapes, then commands, then presenters."""
