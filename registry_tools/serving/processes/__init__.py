"""The processes of the server: a supervisor, which forks workers, the shadow and trials."""
