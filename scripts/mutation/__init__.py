"""Would the tests notice? Injects known bugs and a fixed sample of small mutations, and counts those caught."""
