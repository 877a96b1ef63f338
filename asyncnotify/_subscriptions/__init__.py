"""Those who take notifications: handlers and streams."""
