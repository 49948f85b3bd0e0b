"""Web servers whose processes all start a scheduler, of which one fires; see the page on web servers."""
