"""The sample shop: an MCP server over stdio with its own SQLite file, for the sample agents to work on."""
