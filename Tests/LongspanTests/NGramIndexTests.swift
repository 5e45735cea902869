import Longspan
import Testing

@Suite struct NGramIndexTests {
  /// The longest n-gram that ends the text and its latest earlier occurrence, by comparing at every place.
  private static func search(_ text: [Int32], _ lengths: ClosedRange<Int>) -> NGramIndex.Match? {
    for length in lengths.reversed() where length < text.count {
      let last = text.suffix(length)
      for end in (length..<text.count).reversed() where text[end - length..<end].elementsEqual(last) {
        return NGramIndex.Match(length: length, end: end)
      }
    }
    return nil
  }

  /// Texts over few tokens, so that most n-grams stand in them again.
  @Test(arguments: [1...1, 1...3, 2...3, 3...3, 2...7], [2, 3, 7, 12])
  func findsWhatASearchFinds(lengths: ClosedRange<Int>, kinds: UInt64) {
    var random = Xoshiro256StarStar(seed: kinds)
    var index = NGramIndex(lengths: lengths)
    var text: [Int32] = []
    var matches = 0
    for _ in 0..<300 {
      let token = Int32(random.next() % kinds)
      text.append(token)
      index.append(token)
      #expect(index.text == text)
      #expect(index.match == Self.search(text, lengths))
      matches += index.match == nil ? 0 : 1
    }
    #expect(matches > 0)
  }

  @Test func longerNGramsComeFirst() {
    var index = NGramIndex(lengths: 1...3)
    // of 1 2 3 there is one place; 2 3 stands later as well
    for token in [1, 2, 3, 4, 8, 2, 3, 5, 1, 2] as [Int32] { index.append(token) }
    #expect(index.match == NGramIndex.Match(length: 2, end: 2))
    index.append(3)
    #expect(index.match == NGramIndex.Match(length: 3, end: 3))
    #expect(index.continuation(limit: 2) == [4, 8])
    #expect(index.continuation(limit: 100).prefix(8) == [4, 8, 2, 3, 5, 1, 2, 3])
    #expect(index.continuation(limit: 0).isEmpty && index.continuation(limit: -1).isEmpty)
    index.append(7)
    #expect(index.match == nil && index.continuation(limit: 5).isEmpty)
  }

  /// A copy that reaches the text's end goes on with its beginning.
  @Test(arguments: 1...5) func repetitionsGoOn(period: Int) {
    var index = NGramIndex(lengths: 1...3)
    let text = (0..<4 * period).map { Int32($0 % period) }
    for token in text { index.append(token) }
    #expect(index.continuation(limit: 17) == (0..<17).map { Int32((text.count + $0) % period) })
  }

  @Test func emptyAndShortTexts() {
    var index = NGramIndex(lengths: 2...3)
    #expect(index.match == nil && index.continuation(limit: 3).isEmpty)
    index.append(1)
    index.append(1)
    #expect(index.match == nil)
    index.append(1)
    #expect(index.match == NGramIndex.Match(length: 2, end: 2))
    #expect(index.continuation(limit: 3) == [1, 1, 1])
  }
}
