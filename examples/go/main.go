// Sends visits from standard input, one `user<TAB>segment` a line, until its end or SIGTERM.

package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	url := os.Getenv("SEGMENTS_URL")
	if url == "" {
		url = "http://localhost:8080"
	}
	sender := NewSender(url, os.Getenv("SEGMENTS_API_KEY"))
	stopped, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(stopped, syscall.SIGTERM, os.Interrupt)
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			user, segment, _ := strings.Cut(lines.Text(), "\t")
			if sender.Record(user, segment) != nil {
				return
			}
		}
		if lines.Err() != nil {
			log.Println(lines.Err())
		}
	}()
	select {
	case <-ended:
	case <-stopped:
	}
	isComplete := sender.Close(20 * time.Second)
	fmt.Printf("%d recorded, %d acknowledged, %d rejected, %d dropped\n",
		sender.Recorded.Load(), sender.Acknowledged.Load(), sender.Rejected.Load(), sender.Dropped.Load())
	if !isComplete {
		os.Exit(1)
	}
}
