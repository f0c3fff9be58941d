package hive_test

import _ "k3splan/internal/release/releasetest" // plans are valid on any day
