module github.com/kadomori/kadomori/test

go 1.26.8
