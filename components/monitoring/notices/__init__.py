"""Notices of what became of a watched model: mail, Slack and webhooks.

`notice` says what changed and for whom that is news, `channels` who is told and when
not, `senders` how it gets there, and `delivery` puts them together over the outbox.
"""
