"""Durable state: tables, one writer with group commit, readers. SQL differs between databases in `dialect` only."""
