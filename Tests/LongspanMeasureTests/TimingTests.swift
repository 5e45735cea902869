import Testing

@testable import LongspanMeasure

struct TimingTests {
  @Test func medianIsTheMiddle() throws {
    #expect(try #require(Timing([5, 1, 9])).median == 5)
    #expect(try #require(Timing([8, 1, 2, 4])).median == 3)
    #expect(try #require(Timing([7])).median == 7)
    #expect(try #require(Timing([7, 3, 5])).minimum == 3)
    #expect(try #require(Timing([7, 3, 5])).repetitions == 3)
    #expect(Timing([]) == nil)
  }
}
