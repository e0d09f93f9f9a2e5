"""Replicas: several engines that serve one stream of requests, on one machine or on many."""
