"""Mutation testing of the mathematics: small changes of the library, each in memory only, that the tests should see."""
