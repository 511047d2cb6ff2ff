"""Tests; they run offline on two cores."""
