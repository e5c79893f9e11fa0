// Sends visits to the segment estimator in batches, and repeats a batch until it is acknowledged.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// permanent has the statuses of a batch that is itself at fault, so that a repetition would be refused, too. Any other
// failure may pass: a fault of the network, of the service, or of a key or an address that the operator corrects.
var permanent = map[int]bool{400: true, 413: true, 415: true, 422: true}

var errClosed = errors.New("the sender is closed")

// Visit is a line of a batch.
type Visit struct {
	UserID  string  `json:"user_id"`
	Segment string  `json:"segment"`
	SeenAt  float64 `json:"seen_at"`
}

// Sender has a queue and a goroutine that sends it. The counters may be read after Close.
type Sender struct {
	Recorded, Acknowledged, Rejected, Dropped int

	url, apiKey string
	batchSize   int
	linger      time.Duration
	client      *http.Client
	random      *rand.Rand
	queue       chan Visit
	mutex       sync.Mutex
	closing     chan struct{}
	done        chan struct{}
	deadline    time.Time // Written before closing is closed, and read after.
}

func NewSender(url, apiKey string) *Sender {
	noRedirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s := &Sender{
		url:       strings.TrimRight(url, "/") + "/segments/batch",
		apiKey:    apiKey,
		batchSize: 1000,
		linger:    200 * time.Millisecond,
		client:    &http.Client{Timeout: 10 * time.Second, CheckRedirect: noRedirects},
		random:    rand.New(rand.NewSource(time.Now().UnixNano())),
		queue:     make(chan Visit, 10_000),
		closing:   make(chan struct{}),
		done:      make(chan struct{}),
	}
	go s.run()
	return s
}

// Record queues a visit that happens now. It blocks while the queue is full.
func (s *Sender) Record(user, segment string) error {
	// Without a time of its own, a repeated visit would count from its repetition.
	visit := Visit{user, segment, float64(time.Now().UnixMilli()) / 1000}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.isClosing() {
		return errClosed
	}
	s.queue <- visit
	s.Recorded++
	return nil
}

// Close sends what is queued, for about the timeout. It returns whether no visit was dropped.
func (s *Sender) Close(timeout time.Duration) bool {
	s.deadline = time.Now().Add(timeout)
	close(s.closing)
	s.mutex.Lock()
	close(s.queue)
	s.mutex.Unlock()
	<-s.done
	return s.Dropped == 0
}

func (s *Sender) run() {
	defer close(s.done)
	for visit := range s.queue {
		batch := []Visit{visit}
		linger := time.After(s.linger)
	collect:
		for len(batch) < s.batchSize {
			select {
			case visit, isOpen := <-s.queue:
				if !isOpen {
					break collect
				}
				batch = append(batch, visit)
			case <-linger:
				break collect
			}
		}
		s.deliver(batch)
	}
}

func (s *Sender) deliver(batch []Visit) {
	failure := "the time to close is over"
	for backoff := 100 * time.Millisecond; !s.isLate(); backoff = min(2*backoff, 10*time.Second) {
		status, body, retryAfter := s.post(batch)
		var report struct {
			Accepted          *int
			Expired, Rejected int
			Errors            []struct {
				Line          int
				Field, Detail string
			}
		}
		_ = json.Unmarshal(body, &report)
		if (status == 200 || status == 422) && report.Accepted != nil {
			s.Acknowledged += *report.Accepted + report.Expired
			s.Rejected += report.Rejected
			for _, e := range report.Errors {
				log.Printf("rejected %+v: %s %s", batch[e.Line-1], e.Field, e.Detail)
			}
			return
		}
		failure = fmt.Sprintf("%d: %.500s", status, bytes.TrimSpace(body))
		if permanent[status] {
			break
		}
		// Full jitter: senders that failed together come back at different times.
		delay := min(retryAfter, time.Minute) + time.Duration(s.random.Int63n(int64(backoff)))
		log.Printf("repeating %d visits in %v after %s", len(batch), delay, failure)
		s.sleep(delay)
	}
	s.Dropped += len(batch)
	log.Printf("dropped %d visits after %s", len(batch), failure)
}

// post returns the status, the body and Retry-After. The status is 0 if there is no answer.
func (s *Sender) post(batch []Visit) (int, []byte, time.Duration) {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, visit := range batch {
		_ = encoder.Encode(visit) // Cannot fail: these are strings and a number.
	}
	request, err := http.NewRequest("POST", s.url, &lines)
	if err != nil {
		return 0, []byte(err.Error()), 0
	}
	request.Header.Set("content-type", "application/x-ndjson")
	if s.apiKey != "" {
		request.Header.Set("authorization", "Bearer "+s.apiKey)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return 0, []byte(err.Error()), 0
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, []byte(err.Error()), 0
	}
	seconds, _ := strconv.Atoi(answer.Header.Get("retry-after"))
	return answer.StatusCode, body, time.Duration(seconds) * time.Second
}

// sleep waits for the delay, or until the sender is closed, or until the time to close is over.
func (s *Sender) sleep(delay time.Duration) {
	if s.isClosing() {
		time.Sleep(min(delay, time.Until(s.deadline)))
		return
	}
	select {
	case <-time.After(delay):
	case <-s.closing:
	}
}

func (s *Sender) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

func (s *Sender) isLate() bool { return s.isClosing() && time.Now().After(s.deadline) }

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}
