"""A site with the admin pages, served and run by real processes, for a real browser to look at."""
