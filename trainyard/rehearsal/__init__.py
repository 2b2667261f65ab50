"""The AWS stack on an emulator: sessions, the rehearsal, the drills."""
