"""Running a real PostgreSQL for tests: programs, cluster, process."""
