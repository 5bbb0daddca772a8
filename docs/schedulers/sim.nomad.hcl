job "sim" {
  type = "batch"

  group "sim" {
    volume "data" {
      type            = "csi"
      source          = "sim"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }

    restart {
      attempts = 10
      interval = "10m"
      delay    = "5s"
      mode     = "fail"
    }

    # Not without end: a program that wsnap has given up stays given up.
    reschedule {
      attempts       = 10
      interval       = "24h"
      unlimited      = false
      delay          = "30s"
      delay_function = "exponential"
      max_delay      = "10m"
    }

    task "sim" {
      driver = "exec"

      # A little longer than --grace.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        command = "/usr/local/bin/wsnap"
        args = [
          "run",
          "--store=/data/store",
          "--cache=/alloc/data/wsnap",
          "--continue",
          "--name=sim",
          "--every=5m",
          "--restart=on-crash",
          "--output=/data/sim.out",
          "/data/sim.wasm",
        ]
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      resources {
        cpu    = 2000
        memory = 2048
      }
    }
  }
}
