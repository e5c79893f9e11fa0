// Sends visits to the segment estimator in batches, and repeats a batch until it is acknowledged.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math"
	"math/rand"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	batchSize = 1000
	capacity  = 10_000
	linger    = 200 * time.Millisecond
)

// permanent has the statuses of a batch that is itself at fault, so that a repetition would be refused, too. Any other
// failure may pass: a fault of the network, of the service, or of a key or an address that the operator corrects.
var permanent = map[int]bool{400: true, 413: true, 415: true, 422: true}

// Visit is a line of a batch.
type Visit struct {
	UserID  string  `json:"user_id"`
	Segment string  `json:"segment"`
	SeenAt  float64 `json:"seen_at"`
}

// Sender has a queue and a goroutine that sends it.
type Sender struct {
	Recorded, Acknowledged, Rejected, Dropped atomic.Int64

	url, apiKey   string
	client        http.Client
	queue         chan Visit
	mutex         sync.Mutex
	close         sync.Once
	closing, done chan struct{}
}

func NewSender(url, apiKey string) *Sender {
	s := &Sender{url: strings.TrimRight(url, "/") + "/segments/batch", apiKey: strings.TrimSpace(apiKey)}
	s.client.Timeout = 10 * time.Second
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.queue, s.closing, s.done = make(chan Visit, capacity), make(chan struct{}), make(chan struct{})
	go s.run()
	return s
}

// Record queues a visit that happens now. It blocks while the queue is full.
func (s *Sender) Record(user, segment string) error {
	// Without a time of its own, a repeated visit would count from its repetition.
	visit := Visit{user, segment, float64(time.Now().UnixMilli()) / 1000}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	select {
	case <-s.closing:
		return errors.New("the sender is closed")
	default:
	}
	select {
	case s.queue <- visit:
		s.Recorded.Add(1)
		return nil
	case <-s.closing:
		return errors.New("the sender is closed")
	}
}

// Close sends what is queued. It returns whether each visit was acknowledged or rejected within the timeout.
func (s *Sender) Close(timeout time.Duration) bool {
	s.close.Do(func() {
		close(s.closing)
		s.mutex.Lock()
		close(s.queue)
		s.mutex.Unlock()
	})
	select {
	case <-s.done:
		return s.Recorded.Load() == s.Acknowledged.Load()+s.Rejected.Load()
	case <-time.After(timeout):
		return false
	}
}

func (s *Sender) run() {
	defer close(s.done)
	for visit := range s.queue {
		batch, late := []Visit{visit}, time.After(linger)
	collect:
		for len(batch) < batchSize {
			select {
			case visit, isOpen := <-s.queue:
				if !isOpen {
					break collect
				}
				batch = append(batch, visit)
			case <-late:
				break collect
			}
		}
		s.deliver(batch)
	}
}

func (s *Sender) deliver(batch []Visit) {
	for backoff := 0.1; ; backoff = math.Min(2*backoff, 10) {
		status, body, retryAfter := s.post(batch)
		var report struct {
			Accepted          *int64
			Expired, Rejected int64
			Errors            []struct {
				Line          int
				Field, Detail string
			}
		}
		_ = json.Unmarshal(body, &report) // Without a report, Accepted stays nil.
		if (status == 200 || status == 422) && report.Accepted != nil {
			s.Acknowledged.Add(*report.Accepted + report.Expired)
			s.Rejected.Add(report.Rejected)
			for _, e := range report.Errors {
				visit := batch[e.Line-1]
				log.Printf("rejected %q in %q: %s %s", visit.UserID, visit.Segment, e.Field, e.Detail)
			}
			return
		}
		if permanent[status] {
			s.Dropped.Add(int64(len(batch)))
			log.Printf("dropped %d visits after %d: %.500s", len(batch), status, body)
			return
		}
		// Full jitter: senders that failed together come back at different times.
		delay := time.Duration((math.Min(retryAfter, 60) + rand.Float64()*backoff) * float64(time.Second))
		log.Printf("repeating %d visits in %v after %d: %.500s", len(batch), delay, status, body)
		s.pause(delay)
	}
}

// pause sleeps until the sender is closed, and from then on for a second at most.
func (s *Sender) pause(delay time.Duration) {
	select {
	case <-s.closing:
		time.Sleep(time.Duration(math.Min(float64(delay), float64(time.Second))))
	default:
		select {
		case <-s.closing:
		case <-time.After(delay):
		}
	}
}

// post returns the status, the body and the seconds of Retry-After. The status is 0 if there is no answer.
func (s *Sender) post(batch []Visit) (status int, body []byte, retryAfter float64) {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, visit := range batch {
		_ = encoder.Encode(visit) // Strings and a number can be encoded.
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
	if body, err = io.ReadAll(answer.Body); err != nil {
		return 0, []byte(err.Error()), 0
	}
	seconds, _ := strconv.Atoi(answer.Header.Get("retry-after"))
	return answer.StatusCode, body, float64(seconds)
}
