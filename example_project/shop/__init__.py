"""A shop run by three periodic jobs; see `shop.jobs`."""
