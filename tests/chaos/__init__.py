"""What the promises are worth: kills, freezes and cuts under load, and every event accounted for afterwards."""
