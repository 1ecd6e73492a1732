"""FunnyBirds."""
