"""The command line. `nirvana --help` reads only the table in `main`; commands are imported when they run."""
