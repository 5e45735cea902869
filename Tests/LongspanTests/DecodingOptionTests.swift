import Longspan
import LongspanKernels
import Testing

@Suite struct DecodingOptionTests {
  @Test func readsMethods() throws {
    #expect(try DecodingOption.method("plain") == .plain)
    #expect(try DecodingOption.method("lookup") == .promptLookup(PromptLookupDrafting()))
    #expect(try DecodingOption.method("selfspec") == .selfSpeculative(SelfSpeculativeDrafting()))
    #expect(
      try DecodingOption.method("dmtd")
        == .multiToken(MultiTokenDecoding(cycle: 4, lateLayers: 8, earlyLayers: 0, phase: .prompt)))
    #expect(
      try DecodingOption.method("dmtd:phase=absolute,early=1,late=3,cycle=2")
        == .multiToken(MultiTokenDecoding(cycle: 2, lateLayers: 3, earlyLayers: 1, phase: .absolute)))
    #expect(
      try DecodingOption.method("selfspec:late=5,early=2,cycle=7")
        == .selfSpeculative(SelfSpeculativeDrafting(cycle: 7, lateLayers: 5, earlyLayers: 2)))
    #expect(
      try DecodingOption.method("lookup:draft=5,least=3,ngram=4")
        == .promptLookup(PromptLookupDrafting(ngram: 4, least: 3, draft: 5)))
    // the shortest n-gram is at most the longest
    #expect(
      try DecodingOption.method("lookup:ngram=1")
        == .promptLookup(PromptLookupDrafting(ngram: 1, least: 1, draft: 7)))
  }

  /// A description is a method that reads the same.
  @Test(arguments: [
    "plain", "dmtd:cycle=3,late=2,early=1,phase=absolute", "selfspec:cycle=3,late=2,early=1",
    "lookup:ngram=5,least=4,draft=3",
  ])
  func descriptionsReadTheSame(text: String) throws {
    #expect(try DecodingOption.method(text).description == text)
  }

  @Test(arguments: [
    ("eagle", "plain, dmtd, selfspec, lookup"), ("", "plain, dmtd, selfspec, lookup"),
    ("plain:cycle=1", "plain: has no parameters"), ("dmtd:tau=4", "cycle, late, early, phase"),
    ("dmtd:cycle=0", "dmtd: cycle 0"), ("dmtd:late=0", "dmtd: late 0"), ("dmtd:early=-1", "dmtd: early -1"),
    ("dmtd:phase=later", "prompt or absolute"), ("dmtd:cycle=four", "a whole number"),
    ("selfspec:phase=prompt", "cycle, late, early"), ("selfspec:cycle=0", "selfspec: cycle 0"),
    ("selfspec:cycle=257", "1 to 256"), ("selfspec:late=0", "selfspec: late 0"),
    ("selfspec:early=-1", "selfspec: early -1"), ("lookup:", "key=value"),
    ("lookup:window=3", "ngram, least, draft"), ("lookup:ngram=0", "lookup: ngram 0"),
    ("lookup:ngram=65", "1 to 64"), ("lookup:ngram=2,least=3", "lookup: least 3"),
    ("lookup:least=0", "lookup: least 0"), ("lookup:draft=0", "lookup: draft 0"),
    ("lookup:draft=257", "1 to 256"), ("lookup:draft=1,draft=2", "twice"),
    ("lookup:ngram=9223372036854775808", "a whole number"),
  ])
  func refusesByName(text: String, part: String) {
    let error = #expect(throws: LongspanError.self) { _ = try DecodingOption.method(text) }
    #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
    #expect(error?.message.contains("\n") == false)
  }

  @Test func layersMustBeLeftToSkip() throws {
    let groups = try SelfSpeculativeDrafting(lateLayers: 3, earlyLayers: 2).layerGroups(of: 6)
    #expect(groups.early == 0..<2 && groups.thinking == 2..<3 && groups.late == 3..<6)
    for (late, early) in [(3, 2), (5, 0), (Int.max, Int.max), (6, 0)] {
      let drafting = try SelfSpeculativeDrafting(lateLayers: late, earlyLayers: early)
      let error = #expect(throws: LongspanError.self) { _ = try drafting.layerGroups(of: 5) }
      #expect(error?.message.contains("none of the model's 5 layers") == true)
    }
  }
}
