"""What the pages share: settings, controls and the decoding view."""
