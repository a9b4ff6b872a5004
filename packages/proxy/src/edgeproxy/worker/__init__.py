"""The data plane's shell: one process per core, an epoll loop of its own, no asyncio."""
