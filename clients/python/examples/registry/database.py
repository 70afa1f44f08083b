"""The database: DATABASE_URL, or SQLite in this directory."""

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///registry.db"), pool_pre_ping=True)
Session = sessionmaker(engine)
