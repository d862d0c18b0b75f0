// Allocates in one way, drops most of it, and then answers whoever asks: 'i' what the runtime
// counts, 'f' the same after debug.FreeOSMemory(). Answering allocates nothing.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
)

var (
	kept    [][]byte
	blocked = make(chan int)
	stats   runtime.MemStats
	line    = make([]byte, 0, 512)
	asked   = make([]byte, 1)
)

// A stack of some 25 KiB.
func deep(n int) int {
	var frame [512]byte
	if n == 0 {
		<-blocked
	} else {
		n = deep(n - 1)
	}
	return n + int(frame[n&511])
}

func fill(count, size, every int) {
	for i := 0; i < count; i++ {
		block := make([]byte, size)
		for at := 0; at < size; at += 512 {
			block[at] = 1
		}
		if i%every == 0 {
			kept = append(kept, block)
		}
	}
}

var patterns = map[string]func(){
	"nothing": func() {},
	"small":   func() { fill(300000, 700, 50) },
	"large":   func() { fill(600, 1<<18, 3) },
	"huge":    func() { fill(5, 30<<20, 2) },
	"stacks": func() {
		for i := 0; i < 300; i++ {
			go deep(40)
		}
		fill(100, 1<<16, 2)
	},
	"released": func() {
		fill(600, 1<<18, 3)
		debug.FreeOSMemory()
		fill(40, 1<<20, 2)
	},
}

func put(name string, value uint64) {
	line = append(line, '"')
	line = append(line, name...)
	line = append(line, "\": "...)
	line = strconv.AppendUint(line, value, 10)
	line = append(line, ", "...)
}

func info() {
	runtime.ReadMemStats(&stats)
	line = append(line[:0], '{')
	put("heap_sys", stats.HeapSys)
	put("heap_inuse", stats.HeapInuse)
	put("heap_idle", stats.HeapIdle)
	put("heap_released", stats.HeapReleased)
	put("stack_inuse", stats.StackInuse)
	line = append(line[:len(line)-2], "}\n"...)
	os.Stdout.Write(line)
}

func main() {
	debug.SetGCPercent(-1) // nothing is collected, or given back, that is not asked for below
	patterns[os.Args[1]]()
	runtime.GC()
	runtime.GC()
	info()
	for {
		if n, _ := os.Stdin.Read(asked); n == 0 {
			return
		}
		if asked[0] == 'f' {
			debug.FreeOSMemory()
		}
		info()
	}
}
