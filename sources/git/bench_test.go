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

// The cost of a poll and of a commit of one file when the mirror is new and when
// it has grown by one fetch after the other (-fetches), with the git command
// beside it.
func BenchmarkAged(b *testing.B) {
	files := map[string]string{}
	for i := range 1000 {
		files[fmt.Sprintf("apps/%02d/%02d.yaml", i/20, i%20)] = fmt.Sprint("content ", i)
	}
	p := localPlace(b)
	p.repo.Write("main", files)
	p.repo.Git("repack", "-q", "-a", "-d")
	r := mustOpen(b, p.options)
	fetchMain(b, r)
	commit := 0
	write := func() {
		commit++
		p.repo.Write("main", map[string]string{fmt.Sprintf("apps/%02d/%02d.yaml", commit%50, commit%20): fmt.Sprint("changed ", commit)})
	}
	measure := func(age string) {
		p.repo.Git("repack", "-q", "-a", "-d")
		b.Run(age+"/Poll", func(b *testing.B) {
			for b.Loop() {
				fetchMain(b, r)
			}
		})
		b.Run(age+"/OneFileCommit", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				write()
				b.StartTimer()
				fetchMain(b, r)
			}
		})
		clone := b.TempDir()
		p.repo.Git("clone", "-q", "--mirror", p.repo.Dir, clone)
		b.Run(age+"/OneFileCommitByGit", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				write()
				b.StartTimer()
				p.repo.Git("--git-dir="+clone, "fetch", "-q")
			}
		})
		fetchMain(b, r)
	}
	measure("New")
	for range *manyFetches {
		write()
		fetchMain(b, r)
	}
	measure("Aged")
}
