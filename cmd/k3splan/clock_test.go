package main

import _ "k3splan/internal/release/releasetest" // plans are valid on any day, for the program too
