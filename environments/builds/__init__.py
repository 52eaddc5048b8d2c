"""Environments outside images: of people, teams, courses and the site."""
