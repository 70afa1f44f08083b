"""The servers that people run, in containers: Redis 8 and Valkey 8, newer than those of the other tests."""
