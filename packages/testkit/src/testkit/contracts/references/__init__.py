"""The smallest implementations that hold their contracts: fakes to test with, and models to read."""
