"""How claims end: what is written of an attempt, what follows from it, and who learns of it.

`held_claims` knows what runs here. `attempt_ends` takes the result of an attempt, has the store
write what `settlement_of` makes of it, and `published_ends` tell of it.
"""
