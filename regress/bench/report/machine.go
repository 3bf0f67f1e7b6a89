package report

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Machine is what the figures were measured on.
type Machine struct {
	Processor string  `json:"processor"`
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memory_gib"`
	Kernel    string  `json:"kernel"`
	FsyncMs   Series  `json:"fsync_ms"` // of 8 kB
	Load      float64 `json:"load"`     // before the benchmark began
}

func (m Machine) String() string {
	return fmt.Sprintf("%d cores of %s, %s GiB, Linux %s, load %s; fsync of 8 kB: %s ms",
		m.Cores, m.Processor, Number(m.MemoryGiB), m.Kernel, Number(m.Load), m.FsyncMs)
}

// ThisMachine describes the machine, with the disk that dir is on. What cannot be found out is left empty.
func ThisMachine(dir string) Machine {
	m := Machine{Processor: "an unknown processor", Cores: runtime.NumCPU(), FsyncMs: fsyncTimes(dir, 50)}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if name := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); name != nil {
			m.Processor = string(name[1])
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if kb := regexp.MustCompile(`(?m)^MemTotal:\s+(\d+) kB`).FindSubmatch(text); kb != nil {
			n, _ := strconv.ParseFloat(string(kb[1]), 64)
			m.MemoryGiB = n / (1 << 20)
		}
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _ = strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	return m
}

// fsyncTimes writes a page again and again, as most of what is measured here does.
func fsyncTimes(dir string, n int) Series {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return nil
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var times Series
	page := make([]byte, 8192)
	for i := range n {
		page[0] = byte(i)
		if _, err := f.WriteAt(page, 0); err != nil {
			return nil
		}
		began := time.Now()
		if err := syscall.Fsync(int(f.Fd())); err != nil {
			return nil
		}
		times.AddDuration(time.Since(began))
	}
	return times
}
