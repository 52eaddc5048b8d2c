"""Courses: a term's class as data, with its timetable, people and servers at the hour.

Stands on ``spawner`` (reservations, starts ahead of time) and ``environments``; the hub and the
console are above it.
"""
