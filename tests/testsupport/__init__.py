"""Real servers, real processes and clocks moved by hand, for the tests."""
