"""Filters of multi-modal data: what of a crawl is worth training on."""
