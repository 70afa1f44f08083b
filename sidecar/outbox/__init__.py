"""The relay of a registry's outbox, in this process. Imported only with OUTBOX_URL: it needs SQLAlchemy."""
