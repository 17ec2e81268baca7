"""What becomes of requests while parts are killed, hang and are late: a seeded schedule, a load, and an oracle."""
