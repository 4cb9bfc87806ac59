package git

import (
	"fmt"
	"testing"

	"github.com/gitopsd/gitopsd/internal/gittest"
)

// The cost of the calls of one round on 10,000 files over HTTP: a poll without a
// change, and a commit of one file with its check and its read.
func BenchmarkRound(b *testing.B) {
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("apps/%03d/%02d.yaml", i/100, i%100)] = fmt.Sprint("content ", i)
	}
	p, _ := webPlace(b, gittest.HTTPOptions{})
	p.repo.Write("main", files)
	p.repo.Git("repack", "-q", "-a", "-d")
	p.options.Dir = b.TempDir()
	r := mustOpen(b, p.options)
	fetchMain(b, r)
	b.Run("Poll", func(b *testing.B) {
		for b.Loop() {
			fetchMain(b, r)
		}
	})
	b.Run("OneFileCommit", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			p.repo.Write("main", map[string]string{"apps/050/50.yaml": fmt.Sprint("changed ", i)})
			b.StartTimer()
			id := fetchMain(b, r)
			tree, err := r.Open(b.Context(), id)
			if err == nil {
				_, err = tree.ReadFile("apps/050/50.yaml", 100)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Clone", func(b *testing.B) {
		for b.Loop() {
			p.options.Dir = b.TempDir()
			fetchMain(b, mustOpen(b, p.options))
		}
	})
}
