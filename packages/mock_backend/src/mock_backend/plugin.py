"""The pytest plugin: mock backends as fixtures, in this process or as processes of their own."""
