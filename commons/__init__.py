"""The ground floor: what every room stands on. Imports none of ours."""
